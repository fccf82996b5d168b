"""What `flexseg inspect` says and draws of datasets, bundles and networks."""
