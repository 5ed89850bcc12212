"""Arrays and scalars of numpy, and tables of pandas, as plain values: they travel whole where both sides have these.

Memory travels as bytes, objects one by one. What pandas infers from its columns, such as text, is inferred again.
"""

from __future__ import annotations

import sys
from typing import Any

from rewards.sandbox.values import learn


def learn_loaded() -> None:
    """Have the values of those that are loaded here travel."""
    if "numpy" in sys.modules:
        _learn_numpy(sys.modules["numpy"])
    if "pandas" in sys.modules:
        _learn_pandas(sys.modules["pandas"])


def _learn_numpy(numpy: Any) -> None:
    def parts(value: Any) -> tuple[Any, ...]:
        array = numpy.asarray(value)
        content = array.ravel().tolist() if array.dtype.hasobject else array.tobytes()
        return array.dtype.str, array.shape, content

    def array(dtype: str, shape: tuple[int, ...], content: Any) -> Any:
        if isinstance(content, bytes):
            return numpy.frombuffer(content, dtype).reshape(shape).copy()
        made = numpy.empty(len(content), object)
        made[:] = content
        return made.reshape(shape)

    learn(numpy.ndarray, parts, array)
    for kind in {numpy.dtype(code).type for code in numpy.typecodes["All"]} - {numpy.object_, numpy.void}:
        learn(kind, parts, lambda *told: array(*told)[()])


def _learn_pandas(pandas: Any) -> None:
    def series(value: Any) -> tuple[Any, ...]:
        return value.name, value.index.to_numpy(), value.to_numpy()

    def table(value: Any) -> tuple[Any, ...]:
        columns = [value.iloc[:, place].to_numpy() for place in range(value.shape[1])]
        return list(value.columns), value.index.to_numpy(), columns

    def made_table(names: list[Any], index: Any, columns: list[Any]) -> Any:
        return pandas.DataFrame(dict(enumerate(columns)), index=index).set_axis(names, axis=1)

    learn(pandas.Series, series, lambda name, index, content: pandas.Series(content, index=index, name=name))
    learn(pandas.DataFrame, table, made_table)
