"""The paper's figures, tables and claims reproduced; one module per section of the report."""

# In the order of the report; here, so that --help does not import JAX.
SECTION_NAMES = (
    "figure1",
    "figure3",
    "figure4",
    "figure5-6",
    "optimizers",
    "results",
    "design",
)
