"""What an evaluation found: records, report.json, report.html and report.md."""
