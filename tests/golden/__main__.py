"""Store what the test compares with: ``python -m tests.golden``, after a change that is meant, and looked at."""

from tests.golden.pictures import PHOTOS, path_of, sheet, write

if __name__ == "__main__":
    for name in PHOTOS:
        write(path_of(name), sheet(name))
        print(path_of(name))
