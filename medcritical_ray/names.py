"""Names that become paths. Those of a store, a manifest or a model's index come from elsewhere, and may be anything."""


def stays_within(name: str) -> bool:
    """Whether a file of this name, which may lie in directories, is below the directory that it is put into."""
    return "\0" not in name and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
