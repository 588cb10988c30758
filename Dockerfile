# A worker by default; any other command of dujiang by naming it: docker run … dujiang batch list
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml requirements-dev.lock README.md LICENSE ./
COPY src src
# The versions that were tested. Their hashes stay out: pip would then want one for this folder, too.
RUN sed -n 's/^\([a-z0-9][^ ;]*==[^ ;]*\).*/\1/p' requirements-dev.lock > pins.txt \
 && python -m venv /opt/dujiang \
 && /opt/dujiang/bin/pip install --no-cache-dir --disable-pip-version-check -c pins.txt '.[postgres]' \
 && /opt/dujiang/bin/pip uninstall --yes --quiet pip

FROM python:3.13-slim
# One number everywhere: whoever may write the shared folder of pictures must be the same user on each machine.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin dujiang \
 && install -d -o dujiang -g dujiang /var/lib/dujiang /pictures
COPY --from=build /opt/dujiang /opt/dujiang
ENV PATH=/opt/dujiang/bin:$PATH DUJIANG_HOME=/var/lib/dujiang PYTHONUNBUFFERED=1
USER dujiang
WORKDIR /pictures
# Workers of one machine share a home folder, so the check names the one of this container: HOST-PID, and it is process 1.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 CMD dujiang workers check "$(hostname)-1"
ENTRYPOINT ["dujiang"]
CMD ["worker"]
