"""One profile per Beam runner. Knows runners, knows no payments."""
