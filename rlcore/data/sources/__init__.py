"""The particulars of each known data set, one file a source."""
