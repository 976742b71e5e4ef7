/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

char *file_read(const char *path, size_t limit, size_t *length)
{
	/* NONBLOCK: a pipe of that name must not keep us. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	char *text = NULL;

	*length = 0;
	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < 0 || (size_t)status.st_size > limit)
		goto end;
	limit = (size_t)status.st_size;
	text = malloc(limit + 2);
	while (text != NULL) {
		ssize_t got = read(fd, text + *length, limit + 1 - *length);

		if (got < 0 && errno == EINTR)
			continue;
		*length += got > 0 ? (size_t)got : 0;
		if (got == 0)
			break;
		/* It is being written: it has more by now than it had. */
		if (got < 0 || *length > limit) {
			free(text);
			text = NULL;
		}
	}
	if (text != NULL)
		text[*length] = '\0';
end:
	close(fd);
	return text;
}
