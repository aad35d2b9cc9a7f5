"""The store of trials and what follows from it: aggregates, locks, measured speed. No torch."""
