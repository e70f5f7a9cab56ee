"""DATASETS: every data set by name, sizes, class names."""

from __future__ import annotations

from dataclasses import dataclass

from robustloss.data.cifar import CIFAR10, CIFAR100, Cifar
from robustloss.data.mnist import FASHION_MNIST, KMNIST, MNIST, Family

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
    """Where a data set comes from and how it is cut.

    Attributes:
        summary: one line for `robustloss list datasets`.
        class_names: in the order of the labels; () where the folder says them.
        sizes: images in the whole training, validation and test set; None where the folder says it.
        scale: largest value that a pixel can have.
        family: the files it is read from; None for the digits bundled with scikit-learn.
    """

    summary: str
    class_names: tuple[str, ...] = ()
    sizes: tuple[int, int, int] | None = None
    scale: float = 255.0
    family: Family | Cifar | None = None


_MNIST_SIZES = (55_000, 5_000, 10_000)
_CIFAR_SIZES = (45_000, 5_000, 10_000)

DATASETS: dict[str, Source] = {
    "digits": Source(
        "1,797 handwritten digits of 8x8 pixels, bundled with scikit-learn (no download)",
        DIGITS,
        (997, 300, 500),
        scale=16.0,
    ),
    "mnist": Source(
        "MNIST: 70,000 handwritten digits of 28x28 pixels",
        DIGITS,
        _MNIST_SIZES,
        family=MNIST,
    ),
    "fashion_mnist": Source(
        "Fashion-MNIST: 70,000 articles of clothing, 28x28 pixels",
        FASHION,
        _MNIST_SIZES,
        family=FASHION_MNIST,
    ),
    "kmnist": Source(
        "Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28x28 pixels",
        HIRAGANA,
        _MNIST_SIZES,
        family=KMNIST,
    ),
    "cifar10": Source(
        "CIFAR-10: 60,000 colour images of 32x32 pixels, 10 classes",
        CIFAR10_CLASSES,
        _CIFAR_SIZES,
        family=CIFAR10,
    ),
    "cifar100": Source(
        "CIFAR-100: 60,000 colour images of 32x32 pixels, 100 classes",
        CIFAR100_CLASSES,
        _CIFAR_SIZES,
        family=CIFAR100,
    ),
    "image_folder": Source(
        "your own images: data.folder names a folder, or a tar archive, with train/CLASS/IMAGE and "
        "test/CLASS/IMAGE"
    ),
}
