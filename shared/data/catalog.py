"""The image sets that the library knows: shapes, counts, names and checksums.

A further set is one entry of `SETS`, its files in `IDX` or `CIFAR`, and, where it can
be fetched, one entry of `DOWNLOADS`, which may also hold sets that are not images.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSet:
    """What an official distribution holds.

    Attributes:
        name: what the user types, and the folder or prefix of its files.
        shape: height, width, channels of one image.
        rows: official numbers of training and test images.
        class_names: names in label order.
        scale: largest pixel value.
        coarse: superclass of each class, empty where the set has none.
    """

    name: str
    shape: tuple[int, int, int]
    rows: tuple[int, int]
    class_names: tuple[str, ...]
    scale: int = 255
    coarse: tuple[int, ...] = ()


@dataclass(frozen=True)
class CifarLayout:
    """One way in which a CIFAR set is distributed.

    Attributes:
        folder: the folder of its files, in the archive as on disk.
        archive: the archive beside that folder.
        train: training files with their MD5, in order.
        test: the test file with its MD5.
        label_bytes: bytes before the pixels of a record, the last one the label;
            0 for the pickled version.
        label_key: where the pickled version keeps its labels.
    """

    folder: str
    archive: str
    train: dict[str, str]
    test: dict[str, str]
    label_bytes: int = 0
    label_key: str = ""


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched.

    Attributes:
        path: where it belongs below the data directory.
        md5: its published checksum.
        urls: where it is, the first that answers is taken.
    """

    path: str
    md5: str
    urls: tuple[str, ...]


_DIGITS = tuple("0123456789")
_FASHION = "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"
_CIFAR10 = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
_CIFAR100 = (
    "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,"
    "bridge,bus,butterfly,camel,can,castle,caterpillar,cattle,chair,chimpanzee,clock,"
    "cloud,cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,"
    "forest,fox,girl,hamster,house,kangaroo,keyboard,lamp,lawn_mower,leopard,lion,"
    "lizard,lobster,man,maple_tree,motorcycle,mountain,mouse,mushroom,oak_tree,orange,"
    "orchid,otter,palm_tree,pear,pickup_truck,pine_tree,plain,plate,poppy,porcupine,"
    "possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,"
    "snail,snake,spider,squirrel,streetcar,sunflower,sweet_pepper,table,tank,telephone,"
    "television,tiger,tractor,train,trout,tulip,turtle,wardrobe,whale,willow_tree,wolf,"
    "woman,worm"
)
# Superclasses in the order of the CIFAR-100 page, 0 aquatic mammals to 19 vehicles 2.
_COARSE = (
    (4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11)
    + (6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5)
    + (5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17)
    + (10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13)
    + (16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13)
)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


SETS = {
    entry.name: entry
    for entry in (
        ImageSet("digits", (8, 8, 1), (1437, 360), _DIGITS, scale=16),
        ImageSet("mnist", (28, 28, 1), (60_000, 10_000), _DIGITS),
        ImageSet("fashion_mnist", (28, 28, 1), (60_000, 10_000), _names(_FASHION)),
        ImageSet(
            "kmnist",
            (28, 28, 1),
            (60_000, 10_000),
            _names("o,ki,su,tsu,na,ha,ma,ya,re,wo"),
        ),
        ImageSet("cifar10", (32, 32, 3), (50_000, 10_000), _names(_CIFAR10)),
        ImageSet(
            "cifar100",
            (32, 32, 3),
            (50_000, 10_000),
            _names(_CIFAR100),
            coarse=_COARSE,
        ),
    )
}

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Official names without `.gz`: images and labels of training, then of test."""

IDX = {
    "mnist": (
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    ),
    "fashion_mnist": (
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
        ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    ),
    "kmnist": (
        ("bdb82020997e1d708af4cf47b453dcf7", ""),
        ("e144d726b3acfaa3e44228e80efcd344", ""),
        ("5c965bf0a639b31b8f53240b1b52f4d7", "bf305b8cd328700fbc17f5acbc2856d2"),
        ("7320c461ea6c1c855c0b718fb2a4b134", "9f55f451c0988b028eccdf7d5cc265ab"),
    ),
}
"""MD5 of each of `IDX_FILES` as distributed (.gz) and of its content, where known."""

CIFAR = {
    "cifar10": (
        CifarLayout(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            train={
                "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
                "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
                "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
                "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
                "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            },
            test={"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
            label_bytes=1,
        ),
        CifarLayout(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            train={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            },
            test={"test_batch": "40351d587109b95175f43aff81a1287e"},
            label_key="labels",
        ),
    ),
    "cifar100": (
        CifarLayout(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            train={"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
            test={"test.bin": "4499cfba6c016c1be1438163640a0898"},
            label_bytes=2,
        ),
        CifarLayout(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            train={"train": "16019d7e3df5f24257cddd939b257f8d"},
            test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
            label_key="fine_labels",
        ),
    ),
}
"""The binary version, then the pickled one."""


def _scan_files(folder: str, name: str, *md5: str) -> dict[str, str]:
    parts = zip(("train", "test"), md5, strict=True)
    return {f"{folder}/tasks_{part}_{name}.txt": digest for part, digest in parts}


SCAN = {
    "simple": _scan_files(
        "simple_split",
        "simple",
        "dcc93c20625b2d3ffbef685396edc959",
        "4986284a1ed140efe3238094767eabc7",
    ),
    "length": _scan_files(
        "length_split",
        "length",
        "9bb7aee6f3ad462c3d51af01bcfe937b",
        "ac3bd14b5a1f1154ee25c797387e0c9a",
    ),
    "jump": _scan_files(
        "add_prim_split",
        "addprim_jump",
        "29a58625e8b2e3b628dfb73b4890dee0",
        "8350ed0a3aaaf425bed3cf8cd4b9eca7",
    ),
    "turn_left": _scan_files(
        "add_prim_split",
        "addprim_turn_left",
        "9270b654ef282b9ae27dae9c433a5770",
        "c8d54ac01e4b3fe9162e5c4588d2707c",
    ),
}
"""Files of each SCAN split, training then test, below `scan/`, with their MD5."""


def _idx_downloads(name: str, *bases: str) -> tuple[Remote, ...]:
    return tuple(
        Remote(f"{name}/{file}.gz", md5, tuple(f"{b}/{file}.gz" for b in bases))
        for file, (md5, _) in zip(IDX_FILES, IDX[name], strict=True)
    )


def _cifar_download(archive: str, md5: str) -> tuple[Remote, ...]:
    bases = ("https://cave.cs.toronto.edu/kriz", "https://www.cs.toronto.edu/~kriz")
    return (Remote(archive, md5, tuple(f"{base}/{archive}" for base in bases)),)


def _scan_downloads() -> tuple[Remote, ...]:
    base = "https://raw.githubusercontent.com/brendenlake/SCAN/master"
    return tuple(
        Remote(f"scan/{file}", md5, (f"{base}/{file}",))
        for files in SCAN.values()
        for file, md5 in files.items()
    )


DOWNLOADS = {
    "mnist": _idx_downloads(
        "mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
    ),
    "fashion_mnist": _idx_downloads(
        "fashion_mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    ),
    "kmnist": _idx_downloads(
        "kmnist",
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
    ),
    "cifar10": _cifar_download(
        "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
    ),
    "cifar100": _cifar_download(
        "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"
    ),
    "scan": _scan_downloads(),
}
"""The official files of each set that `scripts.prepare_data` can fetch."""
