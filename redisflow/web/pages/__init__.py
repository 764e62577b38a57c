"""The pages, one module each: a function from a request to a response, and the parts of it that are kept live."""
