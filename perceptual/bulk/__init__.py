"""Folders and buckets of any size, on Ray Data: every photo is one row of a report, whatever becomes of it.

==============  ======================================================================
``places``      addresses: this machine's folders, and what pyarrow's file systems reach
``planning``    which photos go to which results, and which are done already
``job``         what is wanted of the photos, the same on every machine
``converter``   what an actor does: read, convert, write, and report
``cluster``     Ray: started here, or found
``report``      the rows as a parquet file and as a summary
==============  ======================================================================

Only names and rows pass through Ray. Photos are read, and results written, by the actors themselves, so that memory
does not grow with their number, and what a lost machine had under way is made again from the photo.
"""
