"""What a person must hear of, who hears it, when, and in which words. Pure: no store, no network; takes `now`."""
