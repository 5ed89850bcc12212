"""The SVG graph of a conversation whose attempts are criticised and verified before the last one sums them up."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from rlcore.files import Record

STEP, RADIUS, WIDTH_OF_ENDS, BASE_LINE = 96, 17, 30, 92
INK = {True: "var(--good)", False: "var(--bad)", None: "var(--soft)"}
WORDS = {True: "valid", False: "invalid", None: "not judged"}


def diagram(record: Record) -> Markup | None:
    """Propositions from left to right, the replies about each in its title, and the summary at the end.

    A valid proposition leads to the summary, any other to the next one, which should correct it. None if no attempt was
    both criticised and verified.
    """
    roles = {said["role"] for said in record["between"]}
    attempts = record["attempts"]
    if not roles >= {"critique", "verdict"} or len(attempts) < 2:
        return None
    claims = [_claim(record, number) for number in range(1, len(attempts))]
    nodes = [_node(at, f"P{at + 1}", WORDS[claim], claim, _title(record, at)) for at, claim in enumerate(claims)] + [
        _node(len(claims), "Σ", "summary", None, attempts[-1]["text"])
    ]
    width = 2 * WIDTH_OF_ENDS + STEP * len(claims)
    svg = Markup('<svg class="diagram" viewBox="0 0 {} 124" width="{}" role="img">{}{}</svg>')
    return svg.format(width, width, Markup("").join(_edges(claims)), Markup("").join(nodes))


def _claim(record: Record, number: int) -> bool | None:
    """The claim of the last verdict on an attempt."""
    said = [s["claim"] for s in record["between"] if s["role"] == "verdict" and s["after"] == number]
    return said[-1] if said else None


def _title(record: Record, at: int) -> str:
    said = [f"{s['role']}: {s['text']}" for s in record["between"] if s["after"] == at + 1]
    return "\n\n".join([record["attempts"][at]["text"], *said])


def _x(at: int) -> int:
    return WIDTH_OF_ENDS + STEP * at


def _node(at: int, label: str, words: str, claim: bool | None, title: str) -> Markup:
    shape = Markup(
        '<g><title>{}</title><circle cx="{x}" cy="{y}" r="{r}" style="fill: var(--card); stroke: {ink}; '
        'stroke-width: 2"/><text x="{x}" y="{label_y}" text-anchor="middle" style="fill: var(--ink)">{}</text>'
        '<text x="{x}" y="{words_y}" text-anchor="middle" style="fill: {ink}; font-size: 11px">{}</text></g>'
    )
    places = {"x": _x(at), "y": BASE_LINE - 20, "r": RADIUS, "label_y": BASE_LINE - 15, "words_y": BASE_LINE + 14}
    return shape.format(escape(title), label, words, ink=INK[claim], **places)


def _edges(claims: Sequence[bool | None]) -> list[Markup]:
    """An arc over the row from each valid proposition to the summary, a line from any other to the next one."""
    y, summary, edges = BASE_LINE - 20, len(claims), []
    for at, claim in enumerate(claims):
        if claim:
            start, end, top = _x(at), _x(summary), y - RADIUS
            path = f"M {start} {top} Q {(start + end) // 2} {-top // 2} {end} {top}"
        elif at + 1 < summary:
            path = f"M {_x(at) + RADIUS} {y} L {_x(at + 1) - RADIUS} {y}"
        else:
            continue
        edges.append(Markup('<path d="{}" style="fill: none; stroke: {}"/>').format(path, INK[claim]))
    return edges
