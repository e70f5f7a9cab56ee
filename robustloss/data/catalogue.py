"""DATASETS: every data set by name, with its classes, its sizes and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from robustloss.data.brought.arrays import ArraysReader
from robustloss.data.brought.code import CodeReader
from robustloss.data.brought.hugging_face import HuggingFaceReader
from robustloss.data.brought.torchvision import TorchvisionReader
from robustloss.data.cifar import CIFAR10, CIFAR100
from robustloss.data.digits import DigitsReader
from robustloss.data.files import DataError
from robustloss.data.folders.load import FolderReader
from robustloss.data.mnist import FASHION_MNIST, KMNIST, MNIST
from robustloss.data.reader import Reader
from robustloss.spec.data import DataSpec, kind_of
from robustloss.spec.errors import choice_rule

DIGITS = tuple("0123456789")
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain "
    "mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain "
    "plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
    "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR100_CLASSES = tuple(_CIFAR100.split())


@dataclass(frozen=True)
class Source:
    """Where a data set comes from. Its name and its summary stand in `spec.data`.

    Attributes:
        reader: what reads its files.
        class_names: in the order of the labels; () where only the files say them.
        sizes: images in the whole "train", "validation" and "test" set; empty where only the files
            say them.
    """

    reader: Reader
    class_names: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)


_MNIST_SIZES = {"train": 55_000, "validation": 5_000, "test": 10_000}
_CIFAR_SIZES = {"train": 45_000, "validation": 5_000, "test": 10_000}

DATASETS: dict[str, Source] = {
    "digits": Source(DigitsReader(), DIGITS, {"train": 997, "validation": 300, "test": 500}),
    "mnist": Source(MNIST, DIGITS, _MNIST_SIZES),
    "fashion_mnist": Source(FASHION_MNIST, FASHION, _MNIST_SIZES),
    "kmnist": Source(KMNIST, HIRAGANA, _MNIST_SIZES),
    "cifar10": Source(CIFAR10, CIFAR10_CLASSES, _CIFAR_SIZES),
    "cifar100": Source(CIFAR100, CIFAR100_CLASSES, _CIFAR_SIZES),
    "image_folder": Source(FolderReader()),
    "arrays": Source(ArraysReader()),
    "hugging_face": Source(HuggingFaceReader()),
}

# By the names of torchvision's classes: their files are compared with the published checksums
# here, and by torchvision only when it downloads them.
_CHECKED = {
    "MNIST": "mnist",
    "FashionMNIST": "fashion_mnist",
    "KMNIST": "kmnist",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
}


def find_source(data: DataSpec) -> Source:
    """Return where the data set comes from that the table [data] names.

    Raises:
        DataError: no such name.
    """
    kind, own = kind_of(data.name), data.name.partition(":")[2]
    if kind == "torchvision:":
        if own in _CHECKED and not data.params:
            return DATASETS[_CHECKED[own]]
        return Source(TorchvisionReader(own))
    if kind == "file.py:":
        return Source(CodeReader())
    if data.name not in DATASETS:
        raise DataError(f"data.name (={data.name!r}) {choice_rule(data.name, list(DATASETS))}")
    return DATASETS[data.name]
