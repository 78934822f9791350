"""What a column looks like: one-pass profiles that merge. numpy and pyarrow only; used by trainer and monitor."""
