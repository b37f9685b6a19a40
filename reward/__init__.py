"""What an answer is worth: readers and judges of replays, verdicts and tokens to rewards. People's feedback is to come."""
