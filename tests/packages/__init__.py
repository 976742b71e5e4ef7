# SPDX-License-Identifier: Apache-2.0
"""What an admin gets: packages, man pages, completion, as other programs see them (`make test-packages`)."""
