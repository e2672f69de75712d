"""Converts folders and buckets of any size with Ray Data; a report has one row for each photo, done or failed.

==============  ======================================================================
``places``      folders and files, local or in one of pyarrow's file systems
``planning``    which photos to convert, and the names of their results
``origins``     of which photo each result was made, which a repeated job keeps
``job``         the network and the options, the same for all actors
``converter``   an actor: reads, converts, writes and reports photos
``cluster``     starts Ray or connects to it, and runs the actors
``report``      the rows as a parquet file, and their counts
==============  ======================================================================

Only names and rows pass through Ray. Actors read photos and write results themselves, so memory does not grow with
their number. If a machine is lost, Ray repeats its unfinished blocks on another.
"""
