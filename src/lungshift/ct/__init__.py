"""What a scan is: geometry, volume, mask, case, cohort. Only numpy is needed here."""
