"""Inputs that are kept: a text file for each target, an input a line in hexadecimal, ``#`` before a remark."""

from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")


def read(name: str, folder: Path = FOLDER) -> list[bytes]:
    """The kept inputs of a target, in order; none if there is no file."""
    path = folder / f"{name}.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [bytes.fromhex(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


def add(name: str, inputs: list[bytes], folder: Path = FOLDER) -> None:
    """Append inputs that are not there yet."""
    known = set(read(name, folder))
    with (folder / f"{name}.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{data.hex()}\n" for data in dict.fromkeys(inputs) if data not in known)
