"""Pure kernel of faces and people: numbers in, numbers out, no I/O. Everything here is a documented formula."""
