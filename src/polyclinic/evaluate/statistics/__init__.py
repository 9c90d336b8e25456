"""What scores are worth: intervals, baselines, corrected tests, paired comparison, calibration, sensitivity."""
