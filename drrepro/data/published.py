"""The published data sets that can be fetched: their archives, and what these must be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A published archive: its official address, size in bytes, md5, and the directory in it that is wanted.

    One that its server makes when asked has neither size nor md5: ``size`` is then the most that is taken, ``parts``
    are the folders that are wanted of it, and ``contents`` is the sha256 of what they hold, see `contents_sha256`.
    """

    url: str
    size: int
    md5: str | None
    inside: str = "."
    parts: tuple[str, ...] = ()
    contents: str = ""

    @property
    def name(self) -> str:
        """The file name."""
        return self.url.rsplit("/", 1)[1]

    @property
    def digest(self) -> str:
        """What tells it from another version of itself."""
        return self.md5 or self.contents


COCO = "http://images.cocodataset.org"
VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007"
VOC_FOLDER = "VOCdevkit/VOC2007"
# The publishers state neither sizes nor sums. The md5 sums are those that torchvision (VOC) and many installers (COCO)
# check, the sizes those that the servers state in public download logs.
COCO2017 = (
    Archive(f"{COCO}/zips/train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    Archive(f"{COCO}/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
    Archive(f"{COCO}/annotations/annotations_trainval2017.zip", 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c"),
)
TESTDEV = (
    Archive(f"{COCO}/zips/test2017.zip", 6_646_970_404, "77ad2c53ac5d0aea611d422c0938fb35"),
    Archive(f"{COCO}/annotations/image_info_test2017.zip", 1_144_034, "85da7065e5e600ebfee8af1edb634eb5"),
)
VOC2007 = (
    Archive(f"{VOC}/VOCtrainval_06-Nov-2007.tar", 460_032_000, "c52e279531787c972589f7e41ab4ae64", VOC_FOLDER),
    Archive(f"{VOC}/VOCtest_06-Nov-2007.tar", 451_020_800, "b6e924de25625d8de591ea690078ad9f", VOC_FOLDER),
)
# Of photographs that need no gigabytes: 364 of blood cells, 292 in trainval, in the layout of VOC; MIT licence.
BCCD = (
    Archive(
        "https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip",
        50 * 10**6,
        None,
        "BCCD_Dataset-master/BCCD",
        ("Annotations", "ImageSets/Main", "JPEGImages"),
        "949554629eeca49dcde5769d41eec538f3e700bf73f741bb865d0e49b2087dd1",
    ),
)
# Data set: its folder under $DRREPRO_DATA, and its archives. test-dev lies beside the other splits of COCO.
FETCHED = {
    "coco2017": ("coco2017", COCO2017),
    "coco2017_testdev": ("coco2017", TESTDEV),
    "voc2007": ("voc2007", VOC2007),
    "bccd": ("bccd", BCCD),
}
