"""The paper's figures, tables and claims made anew; one section of the report a module."""

# The sections in the order of the report; here, where --help finds them without importing JAX.
SECTION_NAMES = (
    "figure1",
    "figure3",
    "figure4",
    "figure5-6",
    "optimizers",
    "results",
    "design",
)
