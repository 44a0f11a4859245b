"""How what many ranks print, show and raise becomes readable for one person: folded by rank set."""
