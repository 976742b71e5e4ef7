# SPDX-License-Identifier: Apache-2.0
"""What the packages for Debian and RPM are made of.

manual      man pages and completion, from what reads the commands' arguments
pages       one man page: of a command, or of a document
opt         (shell) the Python environment below /opt, with locked versions
deb, rpm    (shell) `make deb`, `make rpm`
"""
