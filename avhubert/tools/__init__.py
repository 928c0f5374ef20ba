"""Tools for the user: `doctor` checks the installation, `info` describes files and folders."""
