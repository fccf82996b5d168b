"""What was noticed about a dataset's sources, for a person."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.audit import Audit, Finding
from pipelines.label_map import LabelMap

_SHOWN_COLORS = 5
_SHOWN_NAMES = 3


def lines(audit: Audit, label_map: LabelMap) -> list[str]:
    """The findings, each with what it means; an empty list where nothing was noticed."""
    findings = [
        *_of_classes(audit, label_map),
        *_of_masks(audit, label_map),
        *_of_images(audit),
    ]
    return ["", "Noticed in the sources:", *(f"  {line}" for line in findings)] if findings else []


def _of_classes(audit: Audit, label_map: LabelMap) -> list[str]:
    found = []
    splits = [name for name, count in audit.sources.items() if count]
    for class_id, missing in audit.missing_classes.items():
        name = label_map.names[class_id]
        present = [s for s in splits if s not in missing]
        if not present:
            found.append(f"class {name} never occurs")
        elif len(present) == 1:
            found.append(f"class {name} occurs only in {present[0]}")
        else:
            found.append(f"class {name} is missing from {', '.join(missing)}")
    return found


def _of_masks(audit: Audit, label_map: LabelMap) -> list[str]:
    found = []
    for split, empty in audit.empty_masks.items():
        if empty.count:
            total = audit.sources[split]
            found.append(
                f"{split}: {empty.count} of {total} masks ({empty.count / total:.1%}) are without "
                f"foreground: {_names(empty)}"
            )
    if audit.misread_masks.count:
        found.append(
            f"{audit.misread_masks.count} masks hold two values that were read as one class "
            "(0 and 1 as colors, or 0 and 255 as class ids): see --mask_kind and --label_map: "
            f"{_names(audit.misread_masks)}"
        )
    if audit.zero_one_masks.count:
        found.append(
            f"{audit.zero_one_masks.count} masks hold 0 and 1 where others hold 0 and 255; "
            "--mask_kind=binary:0 reads both alike, while colors makes background of the former, "
            f"and index ignored pixels of the latter: {_names(audit.zero_one_masks)}"
        )
    for suffix, lossy in audit.lossy_masks.items():
        found.append(
            f"{lossy.count} masks are {suffix} files, which do not keep colors exactly: "
            f"{_names(lossy)}"
        )
    if audit.unmatched_colors:
        found.append("most frequent mask colors that match none of the label map:")
        found += [
            f"  {color.color}: {color.pixels} pixels in {color.masks} masks; nearest is "
            f"{label_map.names[color.nearest]}, {color.distance:.0f} away"
            for color in audit.unmatched_colors[:_SHOWN_COLORS]
        ]
    return found


def _of_images(audit: Audit) -> list[str]:
    found = []
    if audit.constant_images.count:
        found.append(
            f"{audit.constant_images.count} images have one color everywhere: "
            f"{_names(audit.constant_images)}"
        )
    same = audit.duplicates
    if same.contents:
        relabeled = f" ({same.relabeled} of them with different masks)" if same.relabeled else ""
        found.append(
            f"{same.contents} images occur several times, as {same.sources} sources{relabeled}:"
        )
        found += [f"  {' = '.join(names)}" for names in same.examples]
        if same.contents > len(same.examples):
            found.append(f"  and {same.contents - len(same.examples)} more")
    return found


def _names(finding: Finding) -> str:
    names: Sequence[str] = finding.examples[:_SHOWN_NAMES]
    more = finding.count - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
