"""The pages for people: upload pictures, look after the retry queue, look at what the store has.

Each module may import those above it:

    fields    what the upload page asks for each template
    rows      a data set as a table
    thumbnail small pictures of large ones
    queue     the pages of the retry queue
    reading   what is read of the store
    studies   the pages of what it holds
    app       what all pages have in common, and the blueprint
"""

from service.pages.app import add_pages

__all__ = ["add_pages"]
