"""The data of the examples: real flights, and made-up card payments."""
