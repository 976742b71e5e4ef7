# SPDX-License-Identifier: Apache-2.0
"""What an admin does with QPUs as a whole: see how they are, close one to new jobs, open it again."""
