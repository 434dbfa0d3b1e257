"""Where bytes live: cubes, intermediate results, published versions. The only code that writes.

Here belongs everything that touches a disk, and nothing that computes a number: `models` does the maths,
`schemas` says what is true of what is stored. Nothing stored here is ever executed when it is read: Zarr,
safetensors and JSON only.

Where do I go to ...?

==============================================  ===========================
know which folder holds what                    `storage.layout`
read or upsert a cube, open an old snapshot     `storage.cube`
know what an upsert does to which cell          `storage.upsert`
publish or promote a version                    `storage.published`
find, read or verify a version                  `storage.versions`
keep an intermediate result                     `storage.work`
keep the weights of a model                     `storage.weights`
change chunks, compression, labels of arrays    `storage.arrays`
write a file, take a lock, stage a folder       `storage.files`
read raw data                                   `storage.sources`
==============================================  ===========================
"""
