"""Where bytes live: cubes, intermediate results, published versions. The only code that writes.

Here belongs everything that touches a disk, and nothing that computes a number: `models` does the maths,
`schemas` says what is true of what is stored. Nothing stored here is ever executed when it is read: Zarr,
safetensors and JSON only.

Where do I go to ...?

==============================================  ===========================
know which folder holds what                    `storage.layout`
change what a disk and an object store share    `storage.stores`
read or upsert a cube, open an old snapshot     `storage.cube`
know what an upsert does to which cell          `storage.upsert`
publish or promote a version                    `storage.published`
find and read a version                         `storage.versions`
check a version against its checksums           `storage.checksums`
know how `latest` moves, and what it keeps      `storage.pointer`
check and write the files of a version          `storage.version_files`
know what a version shares with its parent      `storage.continuing`
keep an intermediate result                     `storage.work`
share it with machines that have other disks    `storage.shared_work`
say what is damaged instead of a traceback      `storage.damage`
expire snapshots, re-read a cube                `storage.cube_upkeep`
find and remove what nobody needs any more      `storage.leftovers`
describe what is published to other programs    `storage.catalog`
keep the weights of a model                     `storage.weights`
change chunks, compression, labels of arrays    `storage.arrays`
write a file, take a lock, stage a folder       `storage.files`
read raw data                                   `storage.sources`
read a config file                              `storage.configs`
==============================================  ===========================
"""
