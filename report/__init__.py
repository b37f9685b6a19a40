"""What FetchGate saved and whether answers got worse: figures with intervals from the conversation log, as HTML, JSON, CSV and Parquet."""
