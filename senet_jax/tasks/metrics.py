"""Metrics: their names, and how people are shown their values."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that a task measures: ``val/KEY`` and ``train/KEY`` in ``metrics.jsonl``."""

    key: str
    """Its name among the metrics."""
    title: str
    """Its name for people, such as "top-1"."""
    higher_is_better: bool
    fraction: bool = False
    """It is 0 to 1, and people are shown percent."""
    as_error: bool = False
    """Tables, figures and progress show 1 less the fraction, as the papers do."""
    brief: str = ""
    """Its name in the line of progress and in tables; "" means ``shown_title``."""
    unit: str = ""
    """The unit of a metric that is no fraction, such as "m"."""
    axis_title: str = ""
    """Its name on the axes of figures; "" means ``shown_title``."""
    optional: bool = False
    """Some validations lack it, as that of few classes lacks top-5."""

    @property
    def validation(self) -> str:
        """Its key of the validation in ``metrics.jsonl``."""
        return f"val/{self.key}"

    @property
    def shown_title(self) -> str:
        """The name of what people are shown: "top-1 error"."""
        return f"{self.title} error" if self.as_error else self.title

    @property
    def short_title(self) -> str:
        """The same in little space: "error"."""
        return self.brief or self.shown_title

    @property
    def shown_unit(self) -> str:
        """The unit of what people are shown: "%" of a fraction."""
        return "%" if self.fraction else self.unit

    @property
    def axis(self) -> str:
        """The title of an axis: "top-1 error (%)"."""
        return with_unit(self.axis_title or self.shown_title, self.shown_unit)

    @property
    def points(self) -> str:
        """The unit of a difference of what people are shown."""
        return "points" if self.fraction else self.unit

    @property
    def digits(self) -> int:
        """Decimals that people are shown."""
        return 2 if self.fraction else 4

    @property
    def column(self) -> str:
        """The name of a column of a CSV file: "top1_error"."""
        return f"{self.key}_error" if self.as_error else self.key

    @property
    def shown_lower_is_better(self) -> bool:
        """Among the values that people are shown the lower is the better."""
        return self.higher_is_better == self.as_error

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the greatest value that people are shown; None without such limits."""
        return (0.0, 100.0) if self.fraction else None

    def shown(self, value: float) -> float:
        """The number that people are shown of a value: the error of an accuracy in percent, say."""
        if self.as_error:
            value = 1 - value
        return 100 * value if self.fraction else value

    def shown_text(self, value: float) -> str:
        """The same with its unit, for the line of progress."""
        if self.as_error:
            value = 1 - value
        return self.text(value)

    def text(self, value: float) -> str:
        """The value itself with its unit: "99.44%"."""
        if self.fraction:
            return f"{value:.{self.digits}%}"
        return f"{value:.{self.digits}f} {self.unit}".rstrip()


def with_unit(title: str, unit: str) -> str:
    """The title of a column or an axis: "error (%)"; the title alone without a unit."""
    return f"{title} ({unit})" if unit else title
