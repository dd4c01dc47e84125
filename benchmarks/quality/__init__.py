"""What models are worth on real data, beside what a user would pick instead; ``make quality``.

Read data, protocol, floors; then learned (two_tower) for retrieval, ranking (rankers, variants), rechub
(with_torch_rechub) for another project's models, steady, cold, approximate and findings; then measure, which does all
of it for one seed with what search has chosen among levers (searched.json, sizes.json), lines, report and main.
"""
