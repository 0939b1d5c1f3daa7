"""What a run will need and cost, told before anything is spent; and afterwards, how near the forecast came."""
