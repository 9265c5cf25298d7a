"""Case to what a network sees: windows, resizing, slices, splits, lung masks, phantom cohorts."""
