# SPDX-License-Identifier: Apache-2.0
"""What the packages for Debian and RPM are made of.

install     (shell) all that the packages have, below a directory; debian/ and the RPM's spec divide it
prepare     (shell) the Python environment in which they are built
opt.lock    what is installed below /opt
build.lock  what the packages are built with
manual      man pages, completion and the commented config.toml, from arguments and docs
pages       one man page: of a command, or of a document
sample      the commented config.toml
site        the documentation as a site (`make site`)
"""
