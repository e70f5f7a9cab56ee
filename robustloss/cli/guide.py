"""The guide, pages of Markdown in robustloss/guide, and how to cite: `guide` and `cite`."""

import re
from difflib import get_close_matches
from pathlib import Path

from robustloss import __version__

FOLDER = Path(__file__).parent.parent / "guide"
TOPICS = (
    *("reading", "mistakes", "losses", "models", "data", "attacks", "training", "detection"),
    *("statistics", "references", "scripts", "watching", "scale", "gates", "ci", "proof", "safety"),
    "inside",
)
"""The pages in the order in which a reader needs them."""
_MARKER = re.compile(r"^<!-- .* -->\n", re.MULTILINE)  # around what scripts/guide.py writes

BIBTEX = f"""\
@software{{robustloss, title = {{robustloss: losses under attack, in one report}},
  author = {{{{The robustloss authors}}}}, year = {{2026}}, version = {{{__version__}}}}}

@inproceedings{{wan2018rethinking,
  title = {{Rethinking Feature Distribution for Loss Functions in Image Classification}},
  author = {{Wan, Weitao and Zhong, Yuanyi and Li, Tianpeng and Chen, Jiansheng}},
  booktitle = {{Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition}},
  pages = {{9117--9126}}, year = {{2018}}, eprint = {{1803.02988}}}}"""
"""This tool, and the paper that it starts from."""


def list_topics() -> dict[str, str]:
    """Return each page of the guide by its topic, with its title, in the order of TOPICS."""
    pages = {topic: (FOLDER / f"{topic}.md").read_text("utf-8") for topic in TOPICS}
    return {topic: text.partition("\n")[0].removeprefix("# ") for topic, text in pages.items()}


def read_page(topic: str) -> str:
    """Return a page as the terminal shows it, without the marks of what is generated.

    Args:
        topic: Name of the page, in any case.

    Raises:
        ValueError: No such page; the message lists them all.
    """
    topics = list_topics()
    name = topic.strip().lower()
    if name not in topics:
        near = get_close_matches(name, topics, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ValueError(f"guide (={topic}) must be one of {', '.join(topics)}{hint}")
    return _MARKER.sub("", (FOLDER / f"{name}.md").read_text("utf-8"))
