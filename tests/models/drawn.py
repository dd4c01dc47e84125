"""Small histories, as hypothesis draws them: for each user some (time in microseconds, catalogue row)."""

from hypothesis import settings
from hypothesis import strategies as st

DAY = 86_400_000_000
behaviours = st.lists(
    st.lists(st.tuples(st.integers(0, 9).map(lambda n: n * DAY // 2), st.integers(0, 5)), max_size=8),
    min_size=1,
    max_size=5,
)
some = settings(max_examples=25, deadline=None)
