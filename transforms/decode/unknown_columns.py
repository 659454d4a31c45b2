"""What the schema does not name, as columns of texts: the fast way to the column unknown_fields.

It takes names that are known beforehand (learned_names.py). The structure and the order of the text
are those of unknown_fields.py. A struct does not keep the order of its members, so where an object
has several members of unknown name, its text is left to that module.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.columns import json_texts

Names = frozenset[tuple[str, ...]]
"""Where fields stand that the schema does not name: the names of the RECORDs around a field, from
the outermost, and its own.
"""

_ABSENT: Final = msgspec.Raw(b"")


class UnknownMembers:
    """The members of one object that only `names` names, not those of a RECORD within it."""

    def __init__(self, names: Names) -> None:
        self._names = sorted(path[0] for path in names if len(path) == 1)
        self._values_of = [attrgetter(f"unknown_{index}") for index in range(len(self._names))]

    def struct_fields(self) -> list[tuple[str, Any, Any]]:
        """For msgspec.defstruct."""
        return [
            (f"unknown_{index}", msgspec.Raw, msgspec.field(name=name, default=_ABSENT))
            for index, name in enumerate(self._names)
        ]

    def texts(self, records: list[Any]) -> tuple[list[tuple[str, pa.Array]], NDArray[np.bool_]]:
        """Names, each with the text of that member of each record, null where it has none or more
        than this one; and a mask of the records that have more than one.

        records: structs with `struct_fields`.
        """
        found = [json_texts(list(map(values_of, records))) for values_of in self._values_of]
        present = [np.asarray(pc.not_equal(texts, "")) for texts in found]
        count = sum(present, start=np.zeros(len(records), dtype=np.int64))
        members = [
            (name, _only_where(there & (count == 1), texts))
            for name, texts, there in zip(self._names, found, present, strict=True)
            if (there & (count == 1)).any()
        ]
        return members, count > 1


def object_texts(members: list[tuple[str, pa.Array]]) -> pa.Array | None:
    """The text of each object, null where it has nothing unknown; None: none has.

    members: name of a RECORD in the object and the texts of what is unknown of it, null where
    nothing is; then those of UnknownMembers.
    """
    if not members:
        return None
    keys = [f"{msgspec.json.encode(name).decode()}:" for name, _ in members]
    if len(members) == 1:
        return pc.binary_join_element_wise("{" + keys[0], members[0][1], "}", "")
    # null_handling="skip" leaves out a row in which all are null, as of Arrow 25.
    joined = pc.binary_join_element_wise(
        *(
            pc.binary_join_element_wise(f",{key}", texts, "")
            for key, (_, texts) in zip(keys, members, strict=True)
        ),
        "",
        null_handling="replace",
        null_replacement="",
    )
    some = np.asarray(pc.not_equal(joined, ""))
    return _wrapped("{", pc.ascii_ltrim(joined, characters=","), "}", some)


def array_texts(items: pa.Array, offsets: pa.Array, some: NDArray[np.bool_]) -> pa.Array:
    """The text of each array, of the texts of its items; null where not `some` has one."""
    lists = pa.ListArray.from_arrays(offsets, pc.fill_null(items, "null"))
    return _wrapped("[", pc.binary_join(lists, ","), "]", some)


def _wrapped(opening: str, texts: pa.Array, closing: str, where: NDArray[np.bool_]) -> pa.Array:
    return _only_where(where, pc.binary_join_element_wise(opening, texts, closing, ""))


def _only_where(where: NDArray[np.bool_], texts: pa.Array) -> pa.Array:
    return texts if where.all() else pc.if_else(pa.array(where), texts, None)
