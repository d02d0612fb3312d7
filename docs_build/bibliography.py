"""Citations `[@key; @other]` of `docs/references.bib`, and the list of what a page cites.

A hook of mkdocs. The list stands where a page says `<!-- references -->`.
"""

import functools
import re
from pathlib import Path
from typing import Any

from pybtex.database import BibliographyData, Entry, parse_file

BIBLIOGRAPHY = Path(__file__).parent.parent / "docs" / "references.bib"
CITED = re.compile(r"\[(@\w+(?:; @\w+)*)\]")
LIST = "<!-- references -->"


@functools.cache
def bibliography() -> BibliographyData:
    return parse_file(str(BIBLIOGRAPHY))


def cited(markdown: str) -> set[str]:
    return {key for keys in CITED.findall(markdown) for key in re.findall(r"\w+", keys)}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    keys = cited(markdown)
    unknown = sorted(keys - set(bibliography().entries))
    if unknown:
        raise ValueError(f"{page.file.src_uri} cites {unknown}, which references.bib does not have")
    entries = sorted(((k, bibliography().entries[k]) for k in keys), key=lambda e: _order(e[1]))
    text = CITED.sub(_links, markdown)
    listed = "\n".join(f'- <span id="{key}"></span>{_reference(entry)}' for key, entry in entries)
    return text.replace(LIST, listed)


def _links(match: re.Match[str]) -> str:
    entries = bibliography().entries
    return ", ".join(f"[{_label(entries[key])}](#{key})" for key in re.findall(r"\w+", match[1]))


def _names(entry: Entry) -> list[str]:
    return [
        " ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]
    ]


def _order(entry: Entry) -> tuple[list[str], str]:
    return _names(entry), entry.fields["year"]


def _label(entry: Entry) -> str:
    names = _names(entry)
    who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return f"{who} {entry.fields['year']}"


def _reference(entry: Entry) -> str:
    people = ", ".join(
        " ".join(
            [*(f"{n[0]}." for n in p.first_names + p.middle_names), *p.prelast_names, *p.last_names]
        )
        for p in entry.persons["author"]
    )
    fields = entry.fields
    place = fields.get("journal") or fields.get("booktitle") or "preprint"
    numbers = ", ".join(fields[name] for name in ("volume", "pages") if name in fields)
    numbers = numbers.replace("--", "–")
    text = f"{people}: {fields['title']}. *{place}* {numbers} ({fields['year']})"
    if "doi" in fields:
        return f"{text}, [doi:{fields['doi']}](https://doi.org/{fields['doi']})."
    if "eprint" in fields:
        return f"{text}, [arXiv:{fields['eprint']}](https://arxiv.org/abs/{fields['eprint']})."
    return f"{text}."
