"""The part of a Markdown page that a tool writes: what lies between `<!-- name -->` and `<!-- /name -->`."""

import re


def between(page: str, name: str, content: str) -> str:
    """`page` with `content`, whole lines, between the marks `name`. Raises ValueError where these are not there."""
    before, _, after = re.split(rf"(?<=<!-- {name} -->\n)(.*)(?=<!-- /{name} -->)", page, flags=re.DOTALL)
    return before + content + after
