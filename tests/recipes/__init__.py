# SPDX-License-Identifier: Apache-2.0
"""docs/recipes.md, with the real tools on a throw-away cluster (`make test-recipes`)."""
