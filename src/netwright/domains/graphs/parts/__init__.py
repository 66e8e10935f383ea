"""What methods on graphs share: data, losses, rankings, and the recommenders that claims compare with."""
