"""A desk (受理台): one level's docket, run once for each level."""
