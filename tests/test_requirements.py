import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text()
    return [line.strip() for line in text.splitlines() if line and not line.startswith("#")]


def test_cpu_and_gpu_requirements_differ_in_the_build_of_jax_alone():
    gpu = lines("requirements.txt")
    assert gpu[0].startswith("jax[cuda12]")
    assert [line.replace("jax[cuda12]", "jax") for line in gpu] == lines("requirements-cpu.txt")


def test_every_requirement_is_bounded_on_both_sides():
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-docs.txt"):
        for line in lines(name):
            assert line.startswith("-r ") or (">=" in line and "<" in line), line


def test_pyproject_has_the_same_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"] == (
        "requirements-cpu.txt"
    )
    assert ["-r requirements-cpu.txt", *extras["dev"]] == lines("requirements-dev.txt")
    assert extras["parity"] == lines("requirements-parity.txt")
    assert extras["docs"] == lines("requirements-docs.txt")


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "flax_resnet").rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == packages | {"flax_resnet.configs"}
