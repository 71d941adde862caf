# make demo in a container, on the CPU:
#   docker build -t bayesdiff .
#   docker run --rm -v "$PWD/runs:/bayesdiff/runs" bayesdiff
FROM python:3.11-slim

RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /bayesdiff

# what is installed changes less often than the code
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY bayesdiff/__init__.py bayesdiff/
COPY conf conf
COPY experiments experiments
RUN make install
COPY . .

CMD ["make", "demo"]
